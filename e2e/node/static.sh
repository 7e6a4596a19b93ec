#!/bin/sh
# static.sh RUSTC ARGS: cargo's wrapper of rustc for members of the workspace. It links programs with a static C library.
#
# The same by RUSTFLAGS would compile every dependency a second time. They need not be: which C library a program gets is decided
# when it is linked.
# What cargo asks of rustc (--print) is answered as without this.
case " $* " in
*' --print'*) exec "$@" ;;
*' --crate-type bin '*) exec "$@" -C target-feature=+crt-static ;;
*) exec "$@" ;;
esac
