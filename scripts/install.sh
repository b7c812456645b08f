#!/bin/bash
# Installs what the tests, the demo and the benchmarks need on Debian: PostgreSQL, RabbitMQ, ActiveMQ Classic and Artemis with a
# JDK, and a Python with stomp.py and django-outbox-pattern.
# Quick when all is there. None of the packages' services is started or left enabled to start now.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/venv
stomp_py='stomp.py==9.0.0'
# The predecessor wants an older stomp.py, for what is not run here: its dependencies are named one by one.
predecessor='django-outbox-pattern==0.7.0'
predecessor_needs='django==5.2.* psycopg2-binary==2.9.*'
# As in testkit/src/jvm/artemis.rs.
artemis_version=2.40.0
artemis=target/artemis/$artemis_version

missing=()
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
# `make lint` and `make demo` need no broker in Java.
case ${1:-} in lint | demo) java='' ;; *) java=yes ;; esac
if [ -n "$java" ]; then
    [ -e /usr/share/activemq/lib/activemq-stomp.jar ] || missing+=(activemq)
    # The brokers' JRE, and a compiler for the JMS client of the tests.
    command -v javac >/dev/null || missing+=(default-jdk-headless)
    [ -e "$artemis" ] || command -v mvn >/dev/null || missing+=(maven)
fi
command -v psql >/dev/null || missing+=(postgresql-client)
command -v setsid >/dev/null || missing+=(util-linux)
# For `systemd-analyze verify`, which needs no running systemd.
command -v systemd-analyze >/dev/null || missing+=(systemd)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if [ ! -x "$venv/bin/python" ]; then
    # A Python without the means to make a virtual environment is of no use here, so Debian's own is asked.
    /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
# `make matrix` fetches servers with it.
[ "${1:-}" != matrix ] || command -v npm >/dev/null || missing+=(npm)
[ "${1:-}" != matrix ] || command -v debootstrap >/dev/null || missing+=(debootstrap)
# A linker and C compiler for crates that need one.
command -v cc >/dev/null || missing+=(build-essential)
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "not a Debian system: install PostgreSQL, RabbitMQ, ActiveMQ, a JDK, Maven and python3-venv by hand, then run this again" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        echo "packages are missing; run this, then make again:" >&2
        echo "    sudo apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
    # Answers "no" to the packages' wish to start their services, unless the machine has such an answer already.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        # shellcheck disable=SC2064  # the path is known now
        trap "as_root rm -f $policy" EXIT
    fi
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0)
    echo "installing ${missing[*]}"
    as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
        as_root "${apt[@]}" update >/dev/null
        as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null
    }
}

if [ "${#missing[@]}" -gt 0 ]; then
    install_packages </dev/null
fi

# `make lint` wants it and does without where it is not to be had.
if [ "${1:-}" = lint ] && ! command -v shellcheck >/dev/null; then
    missing=(shellcheck)
    (install_packages) </dev/null >/dev/null 2>&1 || true
fi

if ! "$venv/bin/python" -c 'import stomp' 2>/dev/null; then
    echo "installing $stomp_py into $venv"
    rm -rf "$venv"
    mkdir -p target
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$stomp_py" </dev/null
fi

# `make lint` and `make demo` compare nothing with it.
if [ -n "$java" ] && ! "$venv/bin/python" -c 'import django_outbox_pattern, django, psycopg2' 2>/dev/null; then
    echo "installing $predecessor into $venv"
    # shellcheck disable=SC2086  # several packages
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $predecessor_needs </dev/null
    # pip says that stomp.py is too new for it.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$predecessor" </dev/null 2>/dev/null
fi

if [ -n "$java" ] && [ ! -e "$artemis" ]; then
    echo "fetching ActiveMQ Artemis $artemis_version"
    mkdir -p target/artemis
    new=$(mktemp -d target/artemis/new.XXXXXX)
    mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy "-DoutputDirectory=$PWD/$new" \
        "-Dartifact=org.apache.activemq:apache-artemis:$artemis_version:tar.gz:bin" </dev/null
    tar -xzf "$new/apache-artemis-$artemis_version-bin.tar.gz" -C "$new" --no-same-owner
    mv "$new/apache-artemis-$artemis_version" "$artemis"
    rm -r "$new"
fi
