import sys
from inception_tf.replay_step import main
if __name__ == "__main__": sys.exit(main())
