#!/bin/sh
# Ask a sensor, then show its readings of the last day as CSV: sh day.sh [HOST [SENSOR [PORT [HTTP_PORT]]]]
set -eu
host=${1:-127.0.0.1} sensor=${2:-20} port=${3:-50007} http=${4:-8080}

# nc ends its side behind the word (-N); usbgate answers all the same, and closes then.
answer=$(printf 'ask %s\n' "$sensor" | nc -N "$host" "$port" | head -n 1)
case $answer in
    ERROR:*) echo "$answer" >&2 && exit 1 ;;
    '') echo 'no answer' >&2 && exit 1 ;;
    *) echo "$answer" ;;
esac
curl --fail --silent --show-error --get "http://$host:$http/api/v1/readings.csv" \
    --data-urlencode "sensor=$sensor" --data since=1d
