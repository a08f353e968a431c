#!/bin/sh
# A double of tq for tests of what calls it. It models the contract alone: the verbs, the exit codes, one JSON object on
# stdout and log lines on stderr. It does so out of files in the desired state's prefix:
#   mac        installed | drifted | absent | unhealthy: what runs there        release    which release runs
#   channel    the release that the channel names                               bad        releases that are unhealthy
#   ends       a code that every verb but version ends with, as 30 or 6         offline    the channel is unreachable
#   calls      a line for each call
# It may differ from tq in everything that it does not say: it verifies nothing, and installs nothing.
set -eu
verb=${1:-}
[ $# -eq 0 ] || shift
desired=
while [ $# -gt 0 ]; do
    case $1 in
        --desired) desired=$2; shift 2 ;;
        --signers) [ -s "$2" ]; shift 2 ;;
        --json) shift ;;
        *) echo "tq: $1" >&2; exit 2 ;;
    esac
done
value() { sed -n "s/^$1=//p" "$desired"; }
prefix=$(value prefix)
cp "$desired" "$prefix/seen"
printf '%s\n' "$verb" >>"$prefix/calls"
read_file() { [ ! -f "$prefix/$1" ] || cat "$prefix/$1"; }
mac=$(read_file mac)
running=$(read_file release)
wanted=$(value release)
[ -n "$wanted" ] || wanted=$(read_file channel)
[ "$(value state)" != absent ] || wanted=

end() { # CODE RELEASE
    printf '{"verb":"%s","exit_code":%s,"message":"a \\"quoted\\" text","release":"%s","sequence":7}\n' "$verb" "$1" "$2"
    echo "tq: $verb ends with $1" >&2
    exit "$1"
}
[ ! -f "$prefix/ends" ] || end "$(read_file ends)" "$wanted"
compared() {
    case $mac in
        absent) [ -n "$wanted" ] && echo 21 || echo 0 ;;
        drifted) echo 20 ;;
        unhealthy) echo 52 ;;
        *) echo 0 ;;
    esac
}
differs() { [ "$(compared)" != 0 ] || { [ "$mac" != absent ] && [ "$running" != "$wanted" ]; }; }
case $verb in
    plan)
        [ ! -f "$prefix/offline" ] || end 40 "$running"
        if differs; then end 10 "$wanted"; else end 0 "$running"; fi
        ;;
    status) end "$(compared)" "$running" ;;
    apply)
        if [ -f "$prefix/offline" ]; then
            [ "$mac" != absent ] || end 40 ''
            wanted=$running # a repair needs no download
        fi
        differs || end 0 "$running"
        case " $(read_file bad) " in
            *" $wanted "*)
                [ -n "$running" ] || end 52 "$wanted"
                end 51 "$wanted"
                ;;
        esac
        if [ -n "$wanted" ]; then echo installed >"$prefix/mac"; else echo absent >"$prefix/mac"; fi
        echo "$wanted" >"$prefix/release"
        end 10 "$wanted"
        ;;
    rollback) end 53 "$running" ;;
    uninstall)
        [ "$mac" != absent ] || end 21 ''
        echo absent >"$prefix/mac"
        : >"$prefix/release"
        end 0 ''
        ;;
    *) end 2 '' ;;
esac
