#!/bin/sh
# A tq for tests of rollouts: it answers as tq's contract says, with a state folder in place of an installation.
#
# It models: verbs, exit codes and JSON; a release that the channel names or that is pinned; a parent; that a second apply
# changes nothing; the lock; a service that is unhealthy with one release, on this host alone. $HOME/does has its faults,
# as KEY=VALUE lines that are read anew at each call:
#   slow=SECONDS      an apply takes so long      refuse=RELEASE     apply goes back by itself (51)
#   sick=RELEASE      with it the service is unhealthy, which apply does not notice        cpu=RELEASE   with it apply sees no GPU
#   settles=RELEASE   a rollback finds the way back taken; the parent of that: none, or a release
#   names=RELEASE     its channel names another one
#   error=CODE WORD   plan and apply fail thus    die=RELEASE        the first apply of it ends as the host does
# It differs from tq in that nothing is fetched, verified or run, and that settings are one line of text.
set -u
state=$HOME/state
mkdir -p "$state"
verb=$1
shift
desired=
while [ $# -gt 0 ]; do
  case $1 in
    --desired) desired=$2; shift 2 ;;
    --json) shift ;;
    *) echo "usage" >&2; exit 2 ;;
  esac
done
value() { # KEY FILE: sets $found, without a process
  found=
  [ -f "$2" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in "$1="*) found=${line#*=} ;; esac
  done <"$2"
}
text() { # FILE: sets $found
  found=
  [ ! -f "$1" ] || IFS= read -r found <"$1" || :
}
does() { value "$1" "$HOME/does"; }
text "$state/active" && active=$found
text "$state/parent" && parent=$found
text "$state/settings" && settings=$found
value kv_cache_type "$desired" && cache=$found
value release "$desired" && wanted=$found
value channel_url "$desired" && url=${found#file://}
[ -n "$wanted" ] || { text "$url/channels/stable" && wanted=$found; }
does names && wanted=${found:-$wanted}
does sick && sick=$found
does cpu && cpu=$found
echo "$verb $wanted" >>"$state/verbs"

say() { # code result error message release
  healthy=true gpu=null
  [ -n "$5" ] || healthy=null
  [ "$verb $2" != "apply changed" ] || gpu=true
  [ -n "$5" ] && [ "$5" = "$sick" ] && healthy=false
  [ "$gpu" = true ] && [ "$5" = "$cpu" ] && gpu=false
  changes=
  [ "$active" = "$wanted" ] || changes="{\"what\":\"release\",\"is\":\"$active\",\"wanted\":\"$wanted\"}"
  echo "tq: $verb: $2" >&2
  printf '{"verb":"%s","exit_code":%s,"result":"%s","error":"%s","message":"%s","try":"","release":"%s","parent":"%s",' \
    "$verb" "$1" "$2" "$3" "$4" "$5" "$parent"
  printf '"version":"1","channel":"stable","sequence":1,"healthy":%s,"gpu":%s,"changes":[%s],"warnings":[],"seconds":0}\n' \
    "$healthy" "$gpu" "$changes"
  exit "$1"
}
become() { # release settings parent
  printf '%s' "$3" >"$state/parent"
  printf '%s' "$2" >"$state/settings"
  printf '%s' "$1" >"$state/.active"
  mv "$state/.active" "$state/active"
}
fail() {
  does error
  [ -z "$found" ] || say "${found%% *}" failed "${found#* }" "it is ${found#* }" "$active"
}

case $verb in
  status)
    [ -n "$active" ] || say 21 absent "" "nothing is installed" ""
    [ "$active" != "$sick" ] || say 52 failed unhealthy "the service does not answer" "$active"
    [ "$active $settings" = "$wanted $cache" ] || say 20 drift drift "it is not as desired" "$active"
    say 0 as-desired "" "" "$active"
    ;;
  plan)
    fail
    [ "$active $settings" = "$wanted $cache" ] && say 0 as-desired "" "" "$wanted"
    say 10 would-change "" "" "$wanted"
    ;;
  apply | rollback)
    mkdir "$state/lock" 2>/dev/null || {
      text "$state/lock/pid"
      kill -0 "$found" 2>/dev/null && say 6 failed busy "another tq is at work" "$active"
    }
    echo $$ >"$state/lock/pid"
    trap 'rm -rf "$state/lock"' EXIT
    ;;
esac
if [ "$verb" = rollback ]; then
  does settles && [ -n "$found" ] && { # the shim has given up before, so that this goes one release too far
    become "$parent" "$settings" "$found"
    active=$parent parent=$found
    [ "$found" != none ] || parent=
  }
  [ -n "$parent" ] || say 53 failed nothing "nothing to roll back to" "$active"
  become "$parent" "$settings" ""
  say 10 changed "" "" "$parent"
fi
fail
[ "$active $settings" = "$wanted $cache" ] && say 0 as-desired "" "" "$active"
does die
if [ "$wanted" = "$found" ] && [ ! -f "$state/died" ]; then
  : >"$state/died"
  kill -KILL "$(cat "$HOME/sshd.pid")" $PPID $$
fi
does slow
left=$((${found:-0} * 10))
while [ $left -gt 0 ]; do
  echo "tq: downloading" >&2
  sleep 0.1
  left=$((left - 1))
done
does refuse
[ "$wanted" != "$found" ] || say 51 failed rolled-back "$wanted was unhealthy; the parent is active again" "$active"
echo "$wanted" >>"$state/applied"
become "$wanted" "$cache" "$active"
say 10 changed "" "" "$wanted"
