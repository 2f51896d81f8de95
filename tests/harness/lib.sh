# Shared by the tests on containers and on the kernel: counting, waiting, asking. Sourced, never run.
# shellcheck shell=bash

passed=0 failed=0 ignored=0
begun=$SECONDS started=$SECONDS

# Counts a check and says how long it took.
pass() { echo "test $1 ... ok ($((SECONDS - begun)) s)"; passed=$((passed + 1)) begun=$SECONDS; }
fail() { echo "test $1 ... FAILED: $2"; failed=$((failed + 1)) begun=$SECONDS; }

omit() { echo "test $1 ... ignored: $2"; ignored=$((ignored + 1)); }

# How long it took, and the last line, as `cargo test` prints it.
summary() {
    local word=ok
    [ "$failed" = 0 ] || word=FAILED
    echo "took $((SECONDS - started)) s"
    echo "test result: $word. $passed passed; $failed failed; $ignored ignored"
    [ "$failed" = 0 ]
}

# Waits for a command to succeed, at most so many seconds.
eventually() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
}

# JSON of control (or of any address).
get() { curl -fsS --max-time 10 "http://127.0.0.1:$1"; }
send() { # METHOD PORT/PATH JSON
    curl -fsS --max-time 30 -X "$1" -H 'content-type: application/json' -d "$3" "http://127.0.0.1:$2"
}

# Whether a drill's report says that it proves nothing: the machine was too busy. Only such a run is worth another one.
proves_nothing() { # REPORT.json
    grep -q '"verdict": *"invalid"' "$1"
}
once_more() { # SAID
    echo "once more, since the first run proves nothing: $(tail -n 1 "$1")"
}
# Counts a drill. An emulated kernel on a busy machine may be too slow for any; that is no fault of what is tested.
drilled() { # WHAT STATUS REPORT.json SAID
    if [ "$2" = 0 ]; then
        pass "$1: $(python3 tests/harness/figures.py "$3")"
    elif [ -n "${KERNEL_WITH_NETEM:-}" ] && proves_nothing "$3"; then
        omit "$1" "this machine is too slow or too busy for it: $(tail -n 1 "$4")"
    else
        fail "$1" "status $2: $(tail -n 1 "$4")"
    fi
}
# What a returned region has put aside would keep it from becoming primary again.
discard() { # PORT
    send POST "$1/v1/regions/us-east-1/divergent" '{"decision": "discard"}' >/dev/null
}
