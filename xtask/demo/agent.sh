#!/bin/sh
# An agent that does its job and then reaches for more. Run by `cargo xtask demo` under
# policies/ticket-summary.toml; each line of the second half is refused by the kernel.
ticket=$1
store=/srv/tickets

echo "agent: its task"
title=$(head -n 1 "$store/$ticket/ticket.md") || exit 1
advice=$(curl --silent --show-error --fail http://127.0.0.1:8080/kb/blank-labels) || exit 1
printf '%s\n\nKnown cause: %s\n' "$title" "$advice" > out/summary.md || exit 1
sed 's/^/  | /' out/summary.md

try() {
    what=$1; shift
    if answer=$("$@" 2>&1); then
        printf '  GOT IN   %s: %s\n' "$what" "$answer"
    else
        printf '  refused  %s: %s\n' "$what" "$(printf '%s' "$answer" | tail -n 1)"
    fi
}

echo "agent: and more than its task"
try "payment data"     cat "$store/$ticket/payment.json"
try "another ticket"   cat "$store/4712/ticket.md"
try "change a ticket"  sh -c "echo closed >> $store/$ticket/ticket.md"
try "password hashes"  cat /etc/shadow
try "another service"  curl --silent --show-error http://127.0.0.1:9090/admin
try "cloud metadata"   curl --silent --show-error --max-time 5 http://169.254.169.254/latest/meta-data/
try "a new user space" unshare --user --map-root-user id -u
exit 0
