#!/usr/bin/env bash
# One task of train.sbatch: trains, and reports how it ended. Slurm's variables tell it which.
set -uo pipefail

# Slurm signals every process of a task; this shell stays, to report how the worker ended.
trap : TERM
export PYTHONUNBUFFERED=1 # lines have to arrive while they are written
"$PYTHON" -m inception_tf.train "$@"
status=$?
case $status in
0) ;;
143)
  # For srun a success: another worker that is still saving must not be killed for it.
  touch "$WORKER_REPORTS/stopped"
  exit 0
  ;;
*)
  # Of the first that failed alone: the others fail for its sake, or are stopped by srun.
  (set -o noclobber && echo "$status" >"$WORKER_REPORTS/failed") 2>/dev/null
  ;;
esac
exit "$status"
