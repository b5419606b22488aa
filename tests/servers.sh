#!/bin/sh
# Redis and PostgreSQL for the tests that need real ones. As root on Debian or Ubuntu it installs
# what is missing; elsewhere it says which tests will be skipped. Nothing is left running.
missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "Not installed:$missing. The tests that need a real server will be skipped."
exit 0
