// Asks ChatBack one question and prints the answer while it is written, also through a broken connection.
//
// Environment: CHATBACK_TARGET (default 127.0.0.1:50051), CHATBACK_EMAIL, CHATBACK_PASSWORD.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "chatback-example/gen/chatback/v1"
)

const patience = time.Minute // how long a broken stream is tried for without a new event

func main() {
	question := "Hello"
	if len(os.Args) > 1 {
		question = strings.Join(os.Args[1:], " ")
	}
	if err := ask(context.Background(), question); err != nil {
		log.Fatal(explain(err))
	}
}

func ask(ctx context.Context, question string) error {
	target := os.Getenv("CHATBACK_TARGET")
	if target == "" {
		target = "127.0.0.1:50051"
	}
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // credentials.NewTLS(nil) where TLS is in front
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 8 * time.Second}))
	if err != nil {
		return err
	}
	defer connection.Close()

	ctx, err = signIn(ctx, pb.NewAuthServiceClient(connection))
	if err != nil {
		return err
	}
	made, err := pb.NewConversationServiceClient(connection).CreateConversation(ctx,
		&pb.CreateConversationRequest{Title: "From Go", RequestId: uuid.NewString()})
	if err != nil {
		return err
	}
	return follow(ctx, pb.NewChatServiceClient(connection), &pb.SendMessageRequest{
		ConversationId: made.Conversation.ConversationId,
		Content:        question,
		RequestId:      uuid.NewString(), // makes the question safe to repeat
	}, show)
}

// signIn returns a context whose calls bear an access token. A program that runs for longer renews it with
// RefreshTokens before tokens.access_expire_time.
func signIn(ctx context.Context, auth pb.AuthServiceClient) (context.Context, error) {
	deadline, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request := &pb.LoginRequest{Email: os.Getenv("CHATBACK_EMAIL"), Password: os.Getenv("CHATBACK_PASSWORD")}
	login, err := auth.Login(deadline, request)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+login.Tokens.AccessToken), nil
}

// follow hands over every event of the answer, each once and in order, over as many streams as it takes.
func follow(ctx context.Context, chat pb.ChatServiceClient, question *pb.SendMessageRequest, show func(*pb.RunEvent)) error {
	var last *pb.RunEvent
	patient := time.Now().Add(patience)
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 3*time.Second) {
		next, err := open(ctx, chat, question, last)
		for err == nil {
			var event *pb.RunEvent
			if event, err = next(); err == nil {
				show(event)
				last, patient, pause = event, time.Now().Add(patience), 200*time.Millisecond
				if isLast(event) {
					return nil
				}
			}
		}
		if !isAboutTheStream(err) || time.Now().After(patient) {
			return err
		}
		time.Sleep(pause)
	}
}

// open asks the question until its run is known, and from then on for what comes after the last event.
func open(ctx context.Context, chat pb.ChatServiceClient, question *pb.SendMessageRequest, last *pb.RunEvent) (func() (*pb.RunEvent, error), error) {
	if last == nil {
		stream, err := chat.SendMessage(ctx, question)
		return func() (*pb.RunEvent, error) {
			response, err := stream.Recv()
			return response.GetEvent(), err
		}, err
	}
	stream, err := chat.StreamRun(ctx, &pb.StreamRunRequest{RunId: last.RunId, AfterSeq: last.Seq})
	return func() (*pb.RunEvent, error) {
		response, err := stream.Recv()
		return response.GetEvent(), err
	}, err
}

func show(event *pb.RunEvent) {
	switch happened := event.Event.(type) {
	case *pb.RunEvent_TextDelta:
		fmt.Print(happened.TextDelta.Text)
	case *pb.RunEvent_AttemptReset:
		fmt.Print("\n[the answer begins anew]\n")
	case *pb.RunEvent_Completed:
		fmt.Printf("\n[%d events, %s]\n", event.Seq, happened.Completed.FinishReason)
	case *pb.RunEvent_Failed:
		fmt.Printf("\n[failed: %s (%s)]\n", happened.Failed.Message, happened.Failed.Reason)
	case *pb.RunEvent_Cancelled:
		fmt.Print("\n[cancelled]\n")
	}
}

func isLast(event *pb.RunEvent) bool {
	return event.GetCompleted() != nil || event.GetFailed() != nil || event.GetCancelled() != nil
}

func isAboutTheStream(err error) bool {
	code := status.Code(err)
	return errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.Canceled
}

// explain adds the reason that programs should go by.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return fmt.Sprintf("%s (%s)", status.Convert(err).Message(), info.Reason)
		}
	}
	return err.Error()
}
