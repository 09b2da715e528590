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
2 | 3 | 4 | 126 | 127)
  # No other worker's end makes one end so.
  echo "$status" >"$WORKER_REPORTS/failed"
  ;;
138)
  # It lost the others, of which the one that failed may still be ending: srun, which stops all of
  # them for this one, is not told before that one could report.
  echo "$status" >"$WORKER_REPORTS/lost"
  sleep 5
  ;;
*)
  # Of the first that failed alone: the others fail for its sake, or are stopped by srun.
  (set -o noclobber && echo "$status" >"$WORKER_REPORTS/failed") 2>/dev/null
  ;;
esac
exit "$status"
