# Runs on the board as long as one job has it: holds the lease, owns the job's folder, and leaves
# nothing behind, however the connection ends.
#   $1 token: hex digits that no other keeper has   $2 who: user@host, for people
#   $3 silence: seconds after which a client that says nothing is taken for dead
# Reads words: `take` answers `took FOLDER` or `held WHO ...`; `beat` answers `ok`; the end of the
# input is the end of the job.
#
# The lease is a symbolic link, since making one with its text is atomic: TOKEN PID TIME WHO.
token=$1 who=$2 silence=$3
lock=/tmp/codegen-lease
held='' dir='' guard='' mine=''
umask 077

# Kill the job: its process group, which its shell leads; where the server makes no groups
# (dropbear), that shell and the program.
stop() {
    for pid in $(cat "$dir/pid" 2>/dev/null); do
        kill -s KILL -- "-$pid" 2>/dev/null || kill -s KILL "$pid" 2>/dev/null
    done
}

clean() {
    trap - EXIT
    trap '' HUP INT TERM PIPE
    [ "$guard" ] && kill "$guard" 2>/dev/null
    if [ "$dir" ]; then
        stop
        rm -rf "$dir" 2>/dev/null || { sleep 1; rm -rf "$dir"; }
    fi
    [ "$held" ] && [ "$(readlink "$lock")" = "$mine" ] && rm -f "$lock"
}

# A half-open connection never ends the input: end this shell unless `watch` is called again.
watch() {
    [ "$guard" ] && kill "$guard" 2>/dev/null
    (
        trap 'kill "$nap" 2>/dev/null; exit 0' TERM
        sleep "$silence" & nap=$!
        wait "$nap"
        kill "$$"
    ) </dev/null >/dev/null 2>&1 &
    guard=$!
}

take() {
    mine="$token $$ $(date '+%Y-%m-%dT%H:%M:%S') $who"
    if [ ! -d "$lock" ] && said=$(ln -s "$mine" "$lock" 2>&1); then
        held=yes
        if dir=$(mktemp -d "${TMPDIR:-/tmp}/codegen-XXXXXXXXXX" 2>/dev/null) && mkdir "$dir/data"
        then
            watch
            echo "took $dir"
        else
            echo "fail no folder can be made in ${TMPDIR:-/tmp}; is the disk full?"
        fi
        return
    fi
    there=$(readlink "$lock") || { echo "free ${said:-$lock is no lease; remove it}"; return; }
    owner=${there%% *} rest=${there#* }
    pid=${rest%% *} rest=${rest#* }
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -e "$owner"; then
        echo "held ${rest#* } since ${rest%% *}"
    elif mkdir "$lock.break" 2>/dev/null; then
        # Nobody but the holder, who is dead, and whoever has this folder removes the link.
        [ "$(readlink "$lock")" = "$there" ] && rm -f "$lock" 2>/dev/null
        rmdir "$lock.break"
        echo "held ${rest#* } since ${rest%% *}, who is gone; $lock is removed if that is allowed"
    else
        echo "held ${rest#* } since ${rest%% *}, who is gone; remove $lock.break if it stays"
    fi
}

trap clean EXIT
trap 'exit 1' HUP INT TERM PIPE
while read -r word; do
    case $word in
        take) take ;;
        beat) watch; echo ok ;;
    esac
done
