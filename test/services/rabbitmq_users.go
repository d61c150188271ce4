package services

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// definitions is the part of RabbitMQ's definitions file that is used here.
type definitions struct {
	Vhosts      []rabbitVhost      `json:"vhosts"`
	Users       []rabbitUser       `json:"users"`
	Permissions []rabbitPermission `json:"permissions"`
}

type rabbitVhost struct {
	Name string `json:"name"`
}

type rabbitUser struct {
	Name      string   `json:"name"`
	Hash      string   `json:"password_hash"`
	Algorithm string   `json:"hashing_algorithm"`
	Tags      []string `json:"tags"`
}

type rabbitPermission struct {
	User      string `json:"user"`
	Vhost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

func (c *RabbitCluster) definitionsPath() string { return filepath.Join(c.Dir, "definitions.json") }

// loadDefinitions takes over the accounts of an earlier start.
func (c *RabbitCluster) loadDefinitions() error {
	data, err := os.ReadFile(c.definitionsPath())
	if errors.Is(err, os.ErrNotExist) {
		c.definitions = definitions{Vhosts: []rabbitVhost{{Name: "/"}}, Users: []rabbitUser{}, Permissions: []rabbitPermission{}}
		return c.saveDefinitions()
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &c.definitions)
}

func (c *RabbitCluster) saveDefinitions() error {
	data, err := json.MarshalIndent(c.definitions, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.definitionsPath(), append(data, '\n'), 0o600)
}

// AddUser makes an account, or changes it, with three regular expressions of
// names on vhost "/". Before Start it costs nothing, since the nodes import the
// accounts when they start; on a running cluster it takes some milliseconds.
func (c *RabbitCluster) AddUser(ctx context.Context, name, password, configure, write, read string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setUser(name, password, configure, write, read)
	if err := c.saveDefinitions(); err != nil {
		return fmt.Errorf("add rabbitmq account %s: %w", name, err)
	}
	for _, node := range c.Nodes {
		if !node.Process.Running() {
			continue
		}
		code := fmt.Sprintf(`{ok, B} = file:read_file(%q), rabbit_definitions:import_raw(B).`, c.definitionsPath())
		out, err := c.Eval(ctx, node, code)
		if err != nil || out != "ok" {
			return fmt.Errorf("add rabbitmq account %s: %s says %q: %w", name, node.Name, out, err)
		}
		break
	}
	return nil
}

// setUser changes the definitions alone.
func (c *RabbitCluster) setUser(name, password, configure, write, read string) {
	d := &c.definitions
	d.Users = slices.DeleteFunc(d.Users, func(u rabbitUser) bool { return u.Name == name })
	d.Users = append(d.Users, rabbitUser{
		Name: name, Hash: rabbitHash(password), Algorithm: "rabbit_password_hashing_sha256", Tags: []string{},
	})
	d.Permissions = slices.DeleteFunc(d.Permissions, func(p rabbitPermission) bool { return p.User == name })
	d.Permissions = append(d.Permissions, rabbitPermission{
		User: name, Vhost: "/", Configure: configure, Write: write, Read: read,
	})
}

// rabbitHash is RabbitMQ's form of a stored password: salt and the SHA-256 of
// salt and password.
func rabbitHash(password string) string {
	salt := make([]byte, 4)
	_, _ = rand.Read(salt) // never fails
	sum := sha256.Sum256(append(slices.Clone(salt), password...))
	return base64.StdEncoding.EncodeToString(append(salt, sum[:]...))
}

// Ctl runs rabbitmqctl against a node and returns its output. It takes seconds:
// it boots an Erlang VM.
func (c *RabbitCluster) Ctl(ctx context.Context, node *RabbitNode, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(rabbitBin, "rabbitmqctl"), append([]string{"-n", node.Name}, args...)...)
	cmd.Env = append(append(os.Environ(), c.env()...), "RABBITMQ_CONF_ENV_FILE="+node.path("rabbitmq-env.conf"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Eval runs Erlang code, ending in a full stop, in a node, and returns the value
// as Erlang writes it. It takes some milliseconds.
func (c *RabbitCluster) Eval(ctx context.Context, node *RabbitNode, code string) (string, error) {
	cmd := exec.CommandContext(ctx, "erl_call", "-sname", node.Name, "-c", c.cookie, "-e", "-fetch_stdout")
	cmd.Env = append(os.Environ(), c.env()...)
	cmd.Stdin = strings.NewReader(code + "\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("erl_call %s: %w: %s%s", node.Name, err, stdout.Bytes(), stderr.Bytes())
	}
	// A value is printed as {ok, Value}.
	out := strings.TrimSpace(stdout.String())
	out, ok := strings.CutPrefix(out, "{ok, ")
	if !ok {
		return "", fmt.Errorf("erl_call %s: %s", node.Name, out)
	}
	return strings.TrimSuffix(out, "}"), nil
}
