#!/usr/bin/env bash
# Holds the licence of every crate that any target or feature of ours may pull in against a list of those that may be.
# test.sh calls this.
#
#   tests/licences.sh
#
# A crate that names none, or only others, is an error: look at it, then put its licence into the list, or leave the crate out.
# Fetches what other targets than this machine would need, if it is not here yet. Exit code: 0, or 1 with the crates named.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Licences that ask for no more than to be named, see NOTICE. CDLA-Permissive-2.0 is one for data: certificates of the world's
# authorities, which only other systems than Linux get.
readonly ALLOWED="MIT Apache-2.0 BSD-2-Clause BSD-3-Clause ISC Zlib BSL-1.0 Unicode-3.0 CDLA-Permissive-2.0"

main() {
    control
    local crate licence checked=0 bad=0
    while IFS='|' read -r crate licence; do
        checked=$((checked + 1))
        may_be "$licence" && continue
        bad=$((bad + 1))
        echo "$crate: ${licence:-no licence is named}"
    done < <(crates)
    [ $checked -gt 50 ] || { echo "only $checked crates were found" && exit 1; }
    echo "$checked crates, $bad with a licence that is not in the list: $ALLOWED"
    [ $bad = 0 ]
}

# Lines "NAME VERSION|LICENCE".
crates() {
    cargo tree --locked --workspace --all-features --target all --edges normal,build,dev --prefix none \
        --format '{p}|{l}' | sed -E 's/ \(\*\)$//; s/ \((proc-macro|[^)]*\/[^)]*)\)//' | grep . | LC_ALL=C sort -u
}

# Whether an expression such as "(MIT OR Apache-2.0) AND ISC" can be met by what is allowed.
may_be() {
    local words=$1 word sum=
    [ -n "$words" ] || return 1
    # Older crates write a slash for OR. An exception only allows more.
    words=${words//\// OR }
    words=${words// WITH LLVM-exception/}
    words=${words//(/ ( }
    words=${words//)/ ) }
    for word in $words; do
        case $word in
        OR) sum+=+ ;;
        AND) sum+='*' ;;
        '(' | ')') sum+=$word ;;
        *) [[ " $ALLOWED " == *" $word "* ]] && sum+=1 || sum+=0 ;;
        esac
    done
    (((sum) > 0))
}

# What must be told apart is.
control() {
    local licence
    for licence in MIT "MIT OR GPL-3.0" "GPL-3.0/MIT" "(MIT OR GPL-3.0) AND ISC" "Apache-2.0 WITH LLVM-exception"; do
        may_be "$licence" || { echo "control: $licence may be" && exit 1; }
    done
    for licence in "" GPL-3.0 "MIT AND GPL-3.0" "(MIT OR Zlib) AND AGPL-3.0" MIT-0; do
        ! may_be "$licence" || { echo "control: $licence may not be" && exit 1; }
    done
}

main
