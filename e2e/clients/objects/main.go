// Command objects does with kine what Kubernetes' API server does with it:
// every writer keeps one object, creates it once and updates it on the condition
// that nobody has changed it meanwhile, and one watch, that is never started
// again, follows them all. It tells facts until it is killed:
//
//	ack       a write succeeded, with its revision
//	fail      a write met an error
//	conflict  kine says that the object has changed meanwhile; Code tells whether
//	          it has: "unchanged" if it has not, "own" if by this very write,
//	          "lost" if an earlier state is back, "gone" if there is none,
//	          "other" for all else
//	event     the watch delivers a revision
//	ended     the watch has ended
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"pointsman/e2e/clients/facts"
)

// prefix begins the keys of all objects, as Kubernetes' do.
const prefix = "/registry/"

// patience is how long a request may take: the API server's --request-timeout.
const patience = 60 * time.Second

func main() {
	address := flag.String("kine", "127.0.0.1:2379", "where kine serves")
	number := flag.Int("writers", 4, "writers, with one object each")
	pause := flag.Duration("pause", 50*time.Millisecond, "between two writes of a writer")
	flag.Parse()
	conn, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := range *number {
		w := writer{kv: pb.NewKVClient(conn), who: fmt.Sprintf("object-%d", i)}
		go w.run(*pause)
	}
	err = watch(pb.NewWatchClient(conn))
	facts.Tell(facts.Fact{Event: "ended", Who: "watch", Text: err.Error()})
	select {} // the writers go on
}

// watch follows all objects from the beginning, until the stream ends.
func watch(client pb.WatchClient) error {
	stream, err := client.Watch(context.Background(), grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	end := []byte(prefix)
	end[len(end)-1]++ // the first key behind all that begin with prefix
	create := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: end, StartRevision: 1, ProgressNotify: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.Canceled {
			return fmt.Errorf("canceled: %s", answer.CancelReason)
		}
		for _, e := range answer.Events {
			seq, _ := strconv.Atoi(string(e.Kv.Value))
			facts.Tell(facts.Fact{Event: "event", Who: string(e.Kv.Key[len(prefix):]), Seq: seq, Revision: e.Kv.ModRevision})
		}
	}
}

// writer keeps one object, whose value is a number that grows.
type writer struct {
	kv       pb.KVClient
	who      string
	seq      int   // of the last attempt
	revision int64 // of the object; 0 = there is none
}

func (w *writer) run(pause time.Duration) {
	for {
		w.write()
		time.Sleep(pause)
	}
}

func (w *writer) write() {
	w.seq++
	value := strconv.Itoa(w.seq)
	f := facts.Fact{Event: "ack", Who: w.who, Seq: w.seq, Began: facts.Seconds(time.Now())}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := w.kv.Txn(ctx, w.put(value), grpc.WaitForReady(true))
	switch {
	case err != nil:
		f.Event, f.Code, f.Text = "fail", status.Code(err).String(), status.Convert(err).Message()
	case answer.Succeeded:
		w.revision = answer.Header.Revision
		f.Revision = w.revision
	default:
		f.Event = "conflict"
		f.Code, f.Revision = w.conflict(answer, value)
		w.revision = f.Revision
	}
	facts.Tell(f)
}

// put is Kubernetes' request: write, if the object is still as it was known;
// else say what it is now.
func (w *writer) put(value string) *pb.TxnRequest {
	key := []byte(prefix + w.who)
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: w.revision},
		}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte(value)}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}
}

// conflict judges an answer that says no, and returns the object's revision.
func (w *writer) conflict(answer *pb.TxnResponse, value string) (code string, revision int64) {
	if len(answer.Responses) == 0 || len(answer.Responses[0].GetResponseRange().GetKvs()) == 0 {
		return "gone", 0
	}
	object := answer.Responses[0].GetResponseRange().Kvs[0]
	switch {
	case object.ModRevision == w.revision:
		code = "unchanged"
	case string(object.Value) == value:
		code = "own"
	case object.ModRevision < w.revision:
		code = "lost"
	default:
		code = "other"
	}
	return code, object.ModRevision
}
