import sys
from inception_tf.records import main
if __name__ == "__main__": sys.exit(main(["check", *sys.argv[1:]]))
