# SPDX-License-Identifier: MIT
# bash completion for moectl(1)
_moectl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word command=
	local i
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		--socket) ((i++)) ;;
		-*) ;;
		*)
			command=$word
			break
			;;
		esac
	done
	case $prev in
	--socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--text-file | --file | --output)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--text | --prompt | --interval | --seconds | --system | --temperature | --top-k | --top-p | --min-p | --seed | --max-tokens | --stop | \
		--count | --prompt-tokens | --clients | --repeat | --tokens | --context | --sequences | \
		--rounds)
		return
		;;
	esac
	local words
	case $command in
	'') words='status prompt score bench top experts trace ping reload drain --socket --help --version' ;;
	status) words='--json --help' ;;
	prompt)
		words='--system --raw --temperature --top-k --top-p --min-p --seed --max-tokens --stop
			--json --help'
		;;
	score) words='--json --ids --help' ;;
	bench)
		words='--json --prompt-tokens --max-tokens --tokens --context --clients --sequences
			--repeat --rounds --seed --breakdown --help'
		;;
	top) words='--interval --count --json --help' ;;
	experts) words='--text --text-file --json --svg --output --help' ;;
	trace)
		words='--prompt --file --raw --tokens --all --seconds --output --help'
		;;
	ping) words='--json --count --busy --help' ;;
	reload | drain) words='--help' ;;
	*) return ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _moectl moectl
