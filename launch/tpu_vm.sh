#!/usr/bin/env bash
# One experiment on a Cloud TPU slice, from the queued resource to its deletion.
#
#   export NAME=mu TYPE=v5litepod-16 ZONE=us-west4-a BUCKET=gs://my-bucket/runs
#   launch/tpu_vm.sh all configs/llama31_8b_mbpp.py --config.verifier_training.microbatches=4
#
# Every step is printed before it runs; with --dry-run, as the first argument, nothing runs.
#
#   create            ask for the slice and wait until it is there
#   install           copy this repository to every worker and install it
#   run CONFIG [..]   run the experiment on all workers; [..] goes to mucode_jax.main
#   all CONFIG [..]   create, install, run; after a preemption all three again; then fetch, delete
#   fetch             copy results.json and report.html into ./runs/NAME
#   delete            give the slice back
#
# Settings (environment): NAME, ZONE, TYPE (of accelerator); BUCKET (gs://BUCKET/PATH: the work
# directory is PATH/NAME there, so that workers share it and it outlives the slice), or in its place
# NFS (HOST:/SHARE, e.g. Filestore); VERSION (runtime, by default that of TYPE); PROJECT (gcloud's
# own default); SPOT=0 (default 1: cheaper, may be taken away); POLL (seconds between looks at the
# queue). HF_TOKEN, where set, is passed on to fetch gated models; it is not printed.
set -euo pipefail

usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; }

die() {
  echo "tpu_vm.sh: $*" >&2
  exit 2
}

DRY=0
if [[ ${1:-} == --dry-run ]]; then
  DRY=1
  shift
fi
COMMAND=${1:-}
case $COMMAND in
  -h | --help | '') usage; exit 0 ;;
  create | install | fetch | delete) shift; [[ $# == 0 ]] || die "$COMMAND takes no '$1'" ;;
  run | all) shift; [[ $# -ge 1 ]] || die "$COMMAND needs a config: $COMMAND configs/NAME.py" ;;
  *) die "no command '$COMMAND'; see --help" ;;
esac
for name in NAME ZONE TYPE; do
  [[ -n ${!name:-} ]] || die "set $name in the environment; see --help"
done
SPOT=${SPOT:-1} POLL=${POLL:-30} NFS=${NFS:-} BUCKET=${BUCKET:-}
ROOT=$(cd "$(dirname "$0")/.." && pwd)
WHERE=(--zone "$ZONE")
[[ -n ${PROJECT:-} ]] && WHERE+=(--project "$PROJECT")
case $TYPE in
  v5lite*) VERSION=${VERSION:-v2-alpha-tpuv5-lite} ;;
  v5p*) VERSION=${VERSION:-v2-alpha-tpuv5} ;;
  v6e*) VERSION=${VERSION:-v2-alpha-tpuv6e} ;;
  *) [[ -n ${VERSION:-} ]] || die "set VERSION, the runtime version for $TYPE" ;;
esac
[[ -n $NFS || -n $BUCKET || $COMMAND == delete ]] ||
  die "set BUCKET=gs://BUCKET/PATH (or NFS=HOST:/SHARE): the workers share it, and it outlives them"
[[ -z $BUCKET || $BUCKET == gs://?* ]] || die "BUCKET is $BUCKET; it begins with gs://"
if [[ -n $BUCKET ]]; then
  WORKDIR="${BUCKET%/}/${NAME:?}"
else
  WORKDIR="/mnt/mucode/${NAME:?}"
fi

# Functions below may be called in a condition, where `set -e` does not hold: hence `|| return 1`.

# Prints a command, then runs it.
step() {
  local shown
  shown=$(printf '%q ' "$@")
  [[ -n ${HF_TOKEN:-} ]] && shown=${shown//"$HF_TOKEN"/HF_TOKEN}
  printf '+ %s\n' "${shown% }"
  [[ $DRY == 1 ]] || "$@"
}

on_workers() {
  step gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker=all --command "$1"
}

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" --format='value(state.state)'
}

create() {
  local spot=()
  [[ $SPOT == 1 ]] && spot=(--spot)
  step gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" "${WHERE[@]}" \
    --accelerator-type "$TYPE" --runtime-version "$VERSION" "${spot[@]}" || return 1
  echo "+ wait until it is ACTIVE"
  [[ $DRY == 1 ]] && return
  local now='' seen=''
  while now=$(state) || return 1; [[ $now != ACTIVE ]]; do
    [[ $now == "$seen" ]] || echo "  $now"
    seen=$now
    case $now in FAILED | SUSPENDED) echo "tpu_vm.sh: the slice is $now" >&2; return 1 ;; esac
    sleep "$POLL"
  done
}

install() {
  local archive
  archive=${TMPDIR:-/tmp}/mucode_jax.tar.gz
  step git -C "$ROOT" archive --format=tar.gz --prefix=mucode_jax/ -o "$archive" HEAD || return 1
  step gcloud compute tpus tpu-vm scp "$archive" "$NAME:mucode_jax.tar.gz" "${WHERE[@]}" \
    --worker=all || return 1
  local share=''
  [[ -n $BUCKET ]] || share="
sudo apt-get install -qq -y nfs-common
sudo mkdir -p /mnt/mucode
mountpoint -q /mnt/mucode || sudo mount -t nfs $NFS /mnt/mucode
sudo chmod 777 /mnt/mucode"
  on_workers "set -e
tar xzf mucode_jax.tar.gz
command -v ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --python 3.11 --allow-existing mu
~/.local/bin/uv pip install --quiet --python mu/bin/python -e 'mucode_jax[tpu,gcs]'$share"
}

run() {
  local config=$1 token='' arguments=''
  shift
  [[ -n ${HF_TOKEN:-} ]] && token="HF_TOKEN=$HF_TOKEN "
  [[ $# == 0 ]] || arguments=$(printf ' %q' "$@")
  on_workers "cd mucode_jax &&\
 ${token}~/mu/bin/python -m mucode_jax.main --config $config --workdir $WORKDIR$arguments"
}

fetch() {
  step mkdir -p "runs/$NAME"
  local file
  for file in results.json report.html; do
    if [[ -n $BUCKET ]]; then
      step gcloud storage cp "$WORKDIR/$file" "runs/$NAME/$file"
      continue
    fi
    step gcloud compute tpus tpu-vm scp "$NAME:$WORKDIR/$file" "runs/$NAME/$file" "${WHERE[@]}" \
      --worker=0
  done
}

delete() { step gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet; }

all() {
  until create && install && run "$@"; do
    # Only a slice that was taken away is a reason to try again.
    if [[ $(state) == ACTIVE ]]; then
      echo "tpu_vm.sh: it failed, and the slice is still there: mend what it said, then" \
        "'run' goes on from here, 'delete' gives the slice back" >&2
      return 1
    fi
    echo "preempted; once more, from where it was"
    delete
  done
  fetch
  delete
}

"$COMMAND" "$@"
