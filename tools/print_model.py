import sys
from inception_tf.networks import main
if __name__ == "__main__": sys.exit(main())
