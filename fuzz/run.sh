#!/bin/sh
# Runs the fuzz targets named, or all of them, for FUZZ_SECONDS of processor time each, and prints what they did:
# executions, crashes, inputs that took long. Fails when there was a crash, a timeout or memory without end.
set -eu
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-60}
# Slower than this is worth a look; ten times as slow counts as a crash.
slow=${FUZZ_SLOW_SECONDS:-1}
# The longest message (RFC 8654), and what a target wants to know before it.
longest=66000
all="frame open update notification refresh session bmp mrt bfd ra as_path"

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "error: the fuzzers need a nightly compiler and cargo-fuzz" >&2
    echo "hint: rustup toolchain install nightly && cargo install cargo-fuzz --locked" >&2
    exit 2
fi

# Processor seconds of all that this script had run when `times` was last written.
spent() {
    sed -n '2s/[ms]/ /gp' "$logs/times" | awk '{ printf "%d\n", $1 * 60 + $2 + $3 * 60 + $4 }'
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
cargo +nightly run --quiet --bin seed
for target in ${*:-$all}; do
    cargo +nightly fuzz build "$target"
done
status=0
printf '%-14s %10s %12s %10s %8s %8s %8s\n' target cpu-secs executions per-second corpus crashes slow
for target in ${*:-$all}; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log="$logs/$target"
    ended=0
    executions=0
    used=0
    # libFuzzer counts seconds of a clock, and on a shared machine those are not all spent on it.
    while [ "$ended" -eq 0 ] && [ "$used" -lt "$seconds" ]; do
        times >"$logs/times"
        before=$(spent)
        cargo +nightly fuzz run "$target" -- \
            -max_total_time="$((seconds - used))" -print_final_stats=1 \
            -timeout=$((slow * 10)) -report_slow_units="$slow" \
            -rss_limit_mb=2048 -max_len="${FUZZ_MAX_LEN:-$longest}" >"$log" 2>&1 || ended=$?
        times >"$logs/times"
        used=$((used + $(spent) - before))
        run=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
        executions=$((executions + ${run:-0}))
    done
    # An input that had to wait for a processor looks slow as well, until it is asked again.
    for unit in "artifacts/$target"/slow-unit-*; do
        [ -f "$unit" ] || continue
        ms=$(cargo +nightly fuzz run "$target" "$unit" 2>&1 | sed -n 's/^Executed .* in \([0-9]*\) ms$/\1/p')
        [ "${ms:-$((slow * 1000))}" -ge $((slow * 1000)) ] || rm "$unit"
    done
    crashes=$(find "artifacts/$target" -type f \( -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' -o -name 'leak-*' \) | wc -l)
    slows=$(find "artifacts/$target" -type f -name 'slow-unit-*' | wc -l)
    printf '%-14s %10s %12s %10s %8s %8s %8s\n' "$target" "$used" "$executions" "$((executions / (used > 0 ? used : 1)))" \
        "$(find "corpus/$target" -type f | wc -l)" "$crashes" "$slows"
    if [ "$ended" -ne 0 ]; then
        status=1
        tail -40 "$log" >&2
    fi
done
exit "$status"
