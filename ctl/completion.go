package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// shells are those that completion is there for.
var shells = []string{"bash", "zsh", "fish"}

type completionCmd struct{ *app }

func newCompletion(a *app) *cobra.Command {
	c := &completionCmd{app: a}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes verbs, jobs and hosts in your shell",
		Long: `Completion prints a script for your shell. With it, Tab completes verbs and flags,
and, asking the daemon for at most a second, job IDs, hosts, devices and pools.

Install it once:
  bash  gpuqctl completion bash > ~/.local/share/bash-completion/completions/gpuqctl
        (make the directory; needs the package bash-completion)
  zsh   gpuqctl completion zsh > "${fpath[1]}/_gpuqctl"
        (with "autoload -U compinit; compinit" in ~/.zshrc)
  fish  gpuqctl completion fish > ~/.config/fish/completions/gpuqctl.fish`,
		Example: `  source <(gpuqctl completion bash)     # for this shell only
  gpuqctl kill <Tab><Tab>               # jobs that are not over
  gpuqctl drain gpu7/<Tab><Tab>         # devices of gpu7`,
		ValidArgs: shells,
		RunE:      func(cmd *cobra.Command, args []string) error { return c.run(cmd.Root(), args) },
	}
}

func (c *completionCmd) run(root *cobra.Command, args []string) error {
	if len(args) != 1 || !slices.Contains(shells, args[0]) {
		return usagef("want one of %s: see gpuqctl completion --help", strings.Join(shells, ", "))
	}
	switch args[0] {
	case "bash":
		return root.GenBashCompletionV2(c.out, true)
	case "zsh":
		return root.GenZshCompletion(c.out)
	case "fish":
		return root.GenFishCompletion(c.out, true)
	}
	return fmt.Errorf("completion for %s is not written", args[0])
}
