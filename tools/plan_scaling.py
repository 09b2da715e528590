import sys
from inception_tf.plan_scaling import main
if __name__ == "__main__": sys.exit(main())
