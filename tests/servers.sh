#!/bin/sh
# Redis, PostgreSQL and Chromium for the tests that need real ones; with names as arguments, those
# alone. As root on Debian or Ubuntu it installs what is missing; elsewhere it says which tests will
# be skipped. Nothing is left running.
[ $# -eq 0 ] && set -- redis-server postgresql chromium
there() {
  case $1 in
  postgresql) command -v initdb || ls /usr/lib/postgresql/*/bin/initdb ;;
  chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
  *) command -v "$1" ;;
  esac >/dev/null 2>&1
}
missing=""
for name; do there "$name" || missing="$missing $name"; done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
for name in $missing; do
  case $name in
  chromium) tests="tests/web, the page in a browser" ;;
  postgresql) tests="those on PostgreSQL" ;;
  *) tests="those with Celery on Redis" ;;
  esac
  echo "$name is not installed. These tests will be skipped: $tests."
done
exit 0
