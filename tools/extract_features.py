import sys
from inception_tf.features import main
if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
