// The same three paths with Go's net/http: http PORT.
package main

import (
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	hello := []byte("Hello, World!\n")
	large := []byte(strings.Repeat("0123456789abcdef", 640))
	answer := func(body []byte, wait time.Duration) http.HandlerFunc {
		length := strconv.Itoa(len(body))
		return func(w http.ResponseWriter, r *http.Request) {
			if wait > 0 {
				time.Sleep(wait)
			}
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", length)
			w.Write(body)
		}
	}
	http.HandleFunc("/", answer(hello, 0))
	http.HandleFunc("/10k", answer(large, 0))
	http.HandleFunc("/sleep", answer(hello, 10*time.Millisecond))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
