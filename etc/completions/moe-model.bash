# SPDX-License-Identifier: MIT
# bash completion for moe-model(1)
_moe_model()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W 'inspect plan check upcycle tokenize detokenize eval
			--help --version' -- "$cur")
		return
	fi
	case $prev in
	--router)
		mapfile -t COMPREPLY < <(compgen -W 'exact random' -- "$cur")
		return
		;;
	--order)
		mapfile -t COMPREPLY < <(compgen -W 'topk-softmax softmax-topk' -- "$cur")
		return
		;;
	--io)
		mapfile -t COMPREPLY < <(compgen -W 'auto uring pread' -- "$cur")
		return
		;;
	--memory | --experts | --top-k | --router-seed | --layers | --greedy | --threads | \
		--context | --clients | --chunk)
		return
		;;
	esac
	if [[ $cur != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames
		return
	fi
	case ${COMP_WORDS[1]} in
	inspect) words='--json --help' ;;
	plan) words='--memory --context --threads --clients --json --help' ;;
	upcycle) words='--experts --top-k --router --router-seed --layers --order --help' ;;
	tokenize | detokenize) words='--jsonl --help' ;;
	eval)
		words='--prompts --greedy --memory --threads --chunk --batch --io --stats --json
			--help'
		;;
	*) words='--help' ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _moe_model moe-model
