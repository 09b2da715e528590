import sys
from inception_tf.show_batch import main
if __name__ == "__main__": sys.exit(main())
