import sys
from inception_tf.records import main
if __name__ == "__main__": sys.exit(main(["build", *sys.argv[1:]]))  # guarded: workers import this
