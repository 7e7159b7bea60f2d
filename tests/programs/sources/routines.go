// Goroutines, preemption by signals, channels, children, faults and signals in Go.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func main() {
	runtime.GOMAXPROCS(2)
	var group sync.WaitGroup
	var lock sync.Mutex
	total := 0
	for i := 0; i < 100; i++ {
		group.Add(1)
		go func(k int) {
			defer group.Done()
			for j := 0; j < 500; j++ {
				lock.Lock()
				total += k
				lock.Unlock()
				if j%100 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}(i)
	}
	group.Wait()
	fmt.Println(total)

	// Loops without a call: only a signal takes the CPU from them.
	stop := make(chan bool)
	for i := 0; i < 4; i++ {
		go func() {
			for x := 0; ; x++ {
			}
		}()
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		stop <- true
	}()
	fmt.Println("preempted", <-stop)

	out, err := exec.Command("sh", "-c", "echo child; exit 3").Output()
	fmt.Printf("%s%v\n", out, err)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	func() {
		defer func() { fmt.Println(recover()) }()
		var nothing *int
		*nothing = 1
	}()
	runtime.GC()
	reader, writer, _ := os.Pipe()
	go func() {
		time.Sleep(10 * time.Millisecond)
		writer.Write([]byte("piped"))
		writer.Close()
	}()
	text := make([]byte, 10)
	count, _ := reader.Read(text)
	fmt.Println(string(text[:count]))
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("time is over")
	case <-stop:
	}
	os.Exit(7)
}
