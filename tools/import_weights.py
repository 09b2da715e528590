import sys
from inception_tf.weights import main
if __name__ == "__main__": sys.exit(main(["import", *sys.argv[1:]]))
