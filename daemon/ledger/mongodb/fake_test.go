package mongodb_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// fakeServer is the far end of the wire: the primary of a replica set of two,
// which answers each command as the test says and remembers what was asked. It
// shows what the driver sends and how the store reads answers that a server in
// good health never gives; what a store stores is tested on real servers.
type fakeServer struct {
	listener net.Listener
	answers  map[string]bson.D // by command; {ok: 1} for others

	mu    sync.Mutex
	asked map[string]bson.Raw // the last request by command; guarded by mu
}

func startFake(t *testing.T, answers map[string]bson.D) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{listener: l, answers: answers, asked: make(map[string]bson.Raw)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.serve(conn) }) // ends when the client closes
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return f
}

// uri names the fake as the member of a replica set.
func (f *fakeServer) uri() string {
	return "mongodb://" + f.listener.Addr().String() + "/?replicaSet=fake"
}

// last returns the last request of a command.
func (f *fakeServer) last(t *testing.T, command string) bson.Raw {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	raw, ok := f.asked[command]
	if !ok {
		t.Fatalf("the server was never asked to %s", command)
	}
	return raw
}

// serve speaks the wire protocol: OP_QUERY for a connection's first hello, then
// OP_MSG. Source: the MongoDB manual, "MongoDB Wire Protocol".
func (f *fakeServer) serve(conn net.Conn) {
	defer conn.Close()
	const opReply, opQuery, opMsg = 1, 2004, 2013
	for {
		header := make([]byte, 16)
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		body := make([]byte, binary.LittleEndian.Uint32(header)-16)
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		var request bson.Raw
		var reply []byte
		op := binary.LittleEndian.Uint32(header[12:])
		switch op {
		case opQuery:
			name := 4
			for body[name] != 0 {
				name++
			}
			request = document(body[name+1+8:])
			reply = append(reply, make([]byte, 20)...)
			reply[16] = 1 // one document
			op = opReply
		case opMsg:
			request = document(body[5:])
			reply = append(reply, make([]byte, 5)...)
		default:
			return
		}
		answer, err := bson.Marshal(f.answer(request))
		if err != nil {
			return
		}
		reply = append(reply, answer...)
		head := make([]byte, 16)
		binary.LittleEndian.PutUint32(head, uint32(16+len(reply)))
		copy(head[8:12], header[4:8])
		binary.LittleEndian.PutUint32(head[12:], op)
		if _, err := conn.Write(append(head, reply...)); err != nil {
			return
		}
	}
}

// document cuts the document that data begins with.
func document(data []byte) bson.Raw { return bson.Raw(data[:binary.LittleEndian.Uint32(data)]) }

func (f *fakeServer) answer(request bson.Raw) bson.D {
	elements, err := request.Elements()
	if err != nil || len(elements) == 0 {
		return bson.D{{Key: "ok", Value: 0}}
	}
	command := elements[0].Key()
	f.mu.Lock()
	f.asked[command] = request
	f.mu.Unlock()
	if answer, ok := f.answers[command]; ok {
		return answer
	}
	me := f.listener.Addr().String()
	switch command {
	case "hello", "isMaster", "ismaster":
		return bson.D{
			{Key: "ok", Value: 1},
			{Key: "isWritablePrimary", Value: true},
			{Key: "ismaster", Value: true},
			{Key: "helloOk", Value: true},
			{Key: "setName", Value: "fake"},
			{Key: "setVersion", Value: 1},
			{Key: "me", Value: me},
			{Key: "primary", Value: me},
			{Key: "hosts", Value: bson.A{me}},
			{Key: "passives", Value: bson.A{}},
			{Key: "minWireVersion", Value: 0},
			{Key: "maxWireVersion", Value: 21},
			{Key: "logicalSessionTimeoutMinutes", Value: 30},
			{Key: "maxBsonObjectSize", Value: 16 << 20},
			{Key: "maxMessageSizeBytes", Value: 48000000},
			{Key: "maxWriteBatchSize", Value: 100000},
		}
	}
	return bson.D{{Key: "ok", Value: 1}}
}
