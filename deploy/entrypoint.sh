#!/bin/sh
# Runs what the worker asks for. The service's secret comes with Prefect's settings; MLflow's client wants it in two parts.
set -eu
umask 077
if [ -n "${PREFECT_API_AUTH_STRING:-}" ]; then
    export MLFLOW_TRACKING_USERNAME="${MLFLOW_TRACKING_USERNAME:-${PREFECT_API_AUTH_STRING%%:*}}"
    export MLFLOW_TRACKING_PASSWORD="${MLFLOW_TRACKING_PASSWORD:-${PREFECT_API_AUTH_STRING#*:}}"
fi
exec "$@"
