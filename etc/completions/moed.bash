# SPDX-License-Identifier: MIT
# bash completion for moed(8)
_moed()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()
	case $prev in
	--config | --model | --socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames
		;;
	--state)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		compopt -o filenames
		;;
	--memory | --threads) ;;
	*)
		mapfile -t COMPREPLY < <(compgen -W '--config --model --memory --socket --state --threads
			--check --help --version' -- "$cur")
		;;
	esac
}
complete -F _moed moed
