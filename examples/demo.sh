#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What `make demo` shows. Everything happens in a temporary directory.
# Usage: demo.sh [LXCCOPY]
set -eu

lxccopy=${1:-lxccopy}
lxcpath=$(mktemp -d)
trap 'rm -rf "$lxcpath" "/run/lxc/lock$lxcpath"' EXIT

echo "\$ lxccopy --create-base base"
"$lxccopy" -P "$lxcpath" --create-base base

echo "\$ lxccopy -n base -e -t -- sh -c 'hostname; df -T /; exit 7'"
status=0
"$lxccopy" -P "$lxcpath" -n base -e -t -- sh -c 'hostname; df -T /; exit 7' || status=$?
echo "\$ echo \$?"
echo "$status"
[ "$status" = 7 ]

echo "\$ ls $lxcpath"
ls "$lxcpath"
