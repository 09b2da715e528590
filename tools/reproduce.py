import sys
from inception_tf.reproduce import main
if __name__ == "__main__": sys.exit(main())
