package control

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// asUser asks at the socket from a process of another user.
func asUser(t *testing.T, path string, uid uint32) (ListReply, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	// The test binary may lie where only root can read it.
	binary := path + ".test"
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(binary, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir, cmd.Env = "/", []string{peerEnv + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Reply ListReply
		Err   string
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Reply, answer.Err
}

// open lets every user reach the socket's directory, as the package does.
func open(t *testing.T, s *Server) {
	t.Helper()
	dir := strings.TrimSuffix(s.opts.Socket, "/s")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestCallerIsWhoTheKernelNames(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, func(s *Server) { s.opts.Operators = func() []string { return []string{"nobody"} } })
	open(t, s)
	t.Run("Self", func(t *testing.T) {
		if _, err := clientOf(s.opts.Socket).List(t.Context(), ListArgs{}); err != nil {
			t.Fatal(err)
		}
		if got, want := h.lastCaller(), (Caller{User: userName(uint32(os.Getuid())), Operator: true, Via: ViaSocket}); got != want {
			t.Errorf("got %+v, want %+v: whoever runs the daemon is an operator", got, want)
		}
	})
	for name, c := range map[string]struct {
		uid  uint32
		want Caller
	}{
		"Operator":     {65534, Caller{User: "nobody", Operator: true, Via: ViaSocket}},
		"User":         {1, Caller{User: "daemon", Via: ViaSocket}},
		"UserUnnamed":  {54321, Caller{User: "uid:54321", Via: ViaSocket}},
		"LargestOfAll": {4294967294, Caller{User: "uid:4294967294", Via: ViaSocket}},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := asUser(t, s.opts.Socket, c.uid)
			if err != "<nil>" || len(reply.Jobs) != 1 || reply.Jobs[0].Submitter != c.want.User {
				t.Fatalf("got %+v, %s", reply, err)
			}
			if got := h.lastCaller(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	t.Run("ImpersonationIsRefused", func(t *testing.T) {
		c := rawConn(t, s.opts.Socket)
		c.send(`{"schema":1,"verb":"hosts","caller":{"user":"ada","operator":true}}` + "\n")
		if res := c.response(); res.Error == nil || res.Error.Code != CodeForbidden {
			t.Errorf("got %+v", res)
		}
	})
}

func TestOneUserCannotLockTheOthersOut(t *testing.T) {
	s := serve(t, newRecorder(), func(s *Server) { s.limits.connsPerUser = 0 })
	open(t, s)
	if _, err := asUser(t, s.opts.Socket, 1); !strings.Contains(err, "daemon has 0 connections to the daemon already") {
		t.Errorf("a user past the bound gets %s", err)
	}
	if _, err := clientOf(s.opts.Socket).Hosts(t.Context()); err != nil {
		t.Errorf("an operator gets %v", err)
	}
}

func TestDelivery(t *testing.T) {
	h := newRecorder()
	s := NewServer(h, Options{Operators: func() []string { return []string{"ops"} }, Forwards: func(account string) bool { return account == "host-gpu1" }})
	defer s.Stop()
	forwarded := `{"schema":1,"verb":"hosts","caller":{"user":"ada","via":"socket"}}`
	for name, c := range map[string]struct {
		user, request string
		want          Caller // zero: refused
	}{
		"User":                     {"ada", askHosts, Caller{User: "ada", Via: ViaBroker}},
		"Operator":                 {"ops", askHosts, Caller{User: "ops", Operator: true, Via: ViaBroker}},
		"RootOfTheBrokerIsNobody":  {"root", askHosts, Caller{User: "root", Via: ViaBroker}},
		"NoUser":                   {"", askHosts, Caller{}},
		"HostForwards":             {"host-gpu1", forwarded, Caller{User: "ada", Via: ViaForwarded}},
		"HostForwardsAnOperator":   {"host-gpu1", `{"schema":1,"verb":"hosts","caller":{"user":"bo","operator":true}}`, Caller{User: "bo", Operator: true, Via: ViaForwarded}},
		"HostForwardsNobody":       {"host-gpu1", `{"schema":1,"verb":"hosts","caller":{"operator":true}}`, Caller{}},
		"UserForwards":             {"ada", forwarded, Caller{}},
		"OperatorForwards":         {"ops", forwarded, Caller{}},
		"HostAsksForItself":        {"host-gpu1", askHosts, Caller{User: "host-gpu1", Via: ViaBroker}},
		"OversizedDeliveryRefused": {"ada", strings.Repeat(" ", RequestBytesMax) + askHosts, Caller{}},
	} {
		t.Run(name, func(t *testing.T) {
			h.callers = nil
			var res Response
			if err := json.Unmarshal(s.ServeDelivery(t.Context(), c.user, []byte(c.request)), &res); err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == Caller{}:
				if res.Error == nil || len(h.callers) != 0 {
					t.Errorf("got %+v, and the daemon heard of %v", res, h.callers)
				}
			case res.Error != nil || h.callers[0] != c.want:
				t.Errorf("got %v and %+v, want %+v", res.Error, h.callers, c.want)
			}
		})
	}
}
