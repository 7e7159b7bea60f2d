import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Hello {
    static int deep(int x) {
        return deep(x + 1) + 1;
    }

    static int length(String s) {
        return s.length();
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Long>> results = new ArrayList<>();
        for (int i = 0; i < 32; i++) {
            final int k = i;
            results.add(pool.submit(() -> {
                long sum = 0;
                List<byte[]> kept = new ArrayList<>();
                for (int j = 0; j < 20000; j++) {
                    byte[] some = new byte[200];
                    sum += some.length * (long) k;
                    if (j % 100 == 0) {
                        kept.add(some);
                    }
                }
                return sum + kept.size();
            }));
        }
        long total = 0;
        for (Future<Long> result : results) {
            total += result.get();
        }
        pool.shutdown();
        System.gc();
        System.out.println("hello " + total);
        int nulls = 0;
        for (int i = 0; i < 20000; i++) {
            try {
                nulls += length(i % 1000 == 999 ? null : "");
            } catch (NullPointerException e) {
                nulls++;
            }
        }
        System.out.println(nulls + " null checks");
        try {
            System.out.println(1 / (nulls - nulls));
        } catch (ArithmeticException e) {
            System.out.println(e.getMessage());
        }
        try {
            deep(0);
        } catch (StackOverflowError e) {
            System.out.println("stack overflow");
        }
        Process child = new ProcessBuilder("sh", "-c", "echo child; exit 3").start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println(child.waitFor());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("shutting down")));
    }
}
