package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// libraryArgs are the library's names for arguments of queues.
var libraryArgs = map[string]string{
	"QueueTypeArg": amqp.QueueTypeArg, "QueueMessageTTLArg": amqp.QueueMessageTTLArg,
	"QueueMaxLenArg": amqp.QueueMaxLenArg, "QueueOverflowArg": amqp.QueueOverflowArg,
}

// queueArguments returns the keys of every amqp.Table that package broker makes
// for a queue.
func queueArguments(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"topology.go", "consume.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "daemon", "broker", name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			pair, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if key := argument(t, pair.Key); key != "" && !slices.Contains(found, key) {
				found = append(found, key)
			}
			return true
		})
	}
	return found
}

func argument(t *testing.T, key ast.Expr) string {
	t.Helper()
	switch key := key.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(key.Value); err == nil && strings.HasPrefix(text, "x-") {
			return text
		}
	case *ast.SelectorExpr:
		if id, ok := key.X.(*ast.Ident); !ok || id.Name != "amqp" {
			return ""
		}
		text, ok := libraryArgs[key.Sel.Name]
		if !ok {
			t.Errorf("amqp.%s: this test does not know its text", key.Sel.Name)
		}
		return text
	}
	return ""
}
