#!/bin/sh
# The C compiler of FLOODWAY_CC as a linker that gives static programs no fixed address. rustc asks for that on x86_64, and for
# `-static -no-pie` elsewhere, although glibc has what it takes on arm64, too. What is not static is linked as asked.
#   FLOODWAY_CC=cc deploy/static-pie.sh ARGUMENTS...
static=
for word; do
    if [ "$word" = -static ]; then static=yes; fi
done
if [ -n "$static" ]; then
    for word; do
        shift
        case $word in
        -static) set -- "$@" -static-pie ;;
        -no-pie) ;;
        *) set -- "$@" "$word" ;;
        esac
    done
fi
exec "${FLOODWAY_CC:-cc}" "$@"
