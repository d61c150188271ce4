package runner

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// Account is a local account as this host knows it.
type Account struct {
	Name   string `json:"name"`
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups,omitempty"` // supplementary ones; the GID may be among them
	Home   string `json:"home"`
	Shell  string `json:"shell"`
	// AllowRoot is the operator's word that the command may run with UID 0.
	AllowRoot bool `json:"allow_root,omitempty"`
	// Problem says why there is no account to run the command as, and what to do.
	// The shim records it as the attempt's exit, code 126, and runs nothing.
	Problem string `json:"problem,omitempty"`
}

// login returns what the command's environment says of its user.
func (in *Intent) login() (name, home, shell string) {
	if a := in.Account; a != nil {
		return a.Name, a.Home, a.Shell
	}
	name, home = localAccount(os.Getuid())
	return name, home, "/bin/sh"
}

// localAccount returns the name and home of a local user. It reads /etc/passwd
// itself: os/user would bring libc or its resolver into the shim.
func localAccount(uid int) (name, home string) {
	file, err := os.Open("/etc/passwd")
	if err != nil {
		return strconv.Itoa(uid), "/"
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if len(f) >= 6 && f[2] == strconv.Itoa(uid) {
			return f[0], f[5]
		}
	}
	return strconv.Itoa(uid), "/"
}
