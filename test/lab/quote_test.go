package lab

import (
	"os/exec"
	"testing"
)

func TestQuote(t *testing.T) {
	for _, word := range []string{"", "plain", "two words", "it's", `"$HOME" \ *`, "a\nb"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+Quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("a shell reads %q as %q, %v", word, out, err)
		}
	}
}
