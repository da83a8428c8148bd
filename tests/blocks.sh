# shellcheck shell=bash
# Reads a page of Markdown as a script; tests/readme.sh and tests/walk.sh source this.
#
# In a ```console block a line "$ command" begins a command, lines "> ..." right below it belong to it, as a shell shows
# them, and what follows is what it prints. Outside of blocks a line "<!-- walk: ... -->", which a reader does not see,
# says what a person does there who does not type.

# each_command PAGE: calls `command_at LINE COMMAND EXPECTED` and `direction_at LINE TEXT`, in the order of the page.
each_command() {
    local page=$1 number=0 began=0 in_block=no in_command=no command='' expected='' line
    while IFS= read -r line <&3; do
        number=$((number + 1))
        case $in_block:$line in
        no:'```console') in_block=yes ;;
        no:'<!-- walk: '*) line=${line#'<!-- walk: '} && direction_at "$number" "${line%' -->'}" ;;
        no:*) ;;
        yes:'```' | yes:'$ '*)
            [ -z "$command" ] || command_at "$began" "$command" "${expected%$'\n'}"
            command='' expected='' began=$number in_command=no
            if [ "$line" = '```' ]; then in_block=no; else command=${line#'$ '} in_command=yes; fi
            ;;
        yes:'> '* | yes:'>')
            if [ $in_command = yes ]; then
                line=${line#'>'} command+=$'\n'${line#' '}
            else
                expected+=$line$'\n'
            fi
            ;;
        yes:*) expected+=$line$'\n' in_command=no ;;
        esac
    done 3<"$page"
}
