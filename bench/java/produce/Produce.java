import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.common.util.concurrent.MoreExecutors;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Writes records by the Kinesis Producer Library, each with its result, up to a number of them in flight. It prints the number of
 * acknowledged and of failed records so far for each line of its input.
 * Arguments: port of Kinesis with TLS, stream, size of a record, records in flight, number of keys, "aggregate" or "plain". With 0
 * records in flight it has the limits of the library, and writes only for a line "put RATE SECONDS": records that begin with their
 * time, at that rate. Then it prints their number.
 */
public final class Produce {
    private static final AtomicLong WRITTEN = new AtomicLong();
    private static final AtomicLong FAILED = new AtomicLong();

    private Produce() {}

    public static void main(String[] arguments) throws Exception {
        KinesisProducerConfiguration configuration = new KinesisProducerConfiguration()
                .setRegion("us-east-1")
                .setCredentialsProvider(StaticCredentialsProvider.create(
                        AwsBasicCredentials.create("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")))
                .setKinesisEndpoint("127.0.0.1")
                .setKinesisPort(Long.parseLong(arguments[0]))
                .setStsEndpoint("127.0.0.1")
                .setStsPort(Long.parseLong(arguments[0]))
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                .setLogLevel("error")
                .setAggregationEnabled(arguments[5].equals("aggregate"));
        String stream = arguments[1];
        if (arguments[3].equals("0")) {
            putAtRates(new KinesisProducer(configuration), stream, Integer.parseInt(arguments[2]));
        }
        configuration.setRateLimit(1_000_000);
        int size = Integer.parseInt(arguments[2]);
        Semaphore inFlight = new Semaphore(Integer.parseInt(arguments[3]));
        int keys = Integer.parseInt(arguments[4]);
        ByteBuffer[] data = new ByteBuffer[8000];
        String[] names = new String[16_000];
        Random source = new Random(size);
        for (int n = 0; n < data.length; n++) {
            byte[] bytes = new byte[size];
            for (int at = 0; at < size; at++) {
                bytes[at] = (byte) ('a' + source.nextInt(26));
            }
            data[n] = ByteBuffer.wrap(bytes);
        }
        for (int n = 0; n < names.length; n++) {
            names[n] = String.format("user-%07d", source.nextInt(keys));
        }
        KinesisProducer producer = new KinesisProducer(configuration);
        FutureCallback<UserRecordResult> counted = new FutureCallback<>() {
            @Override
            public void onSuccess(UserRecordResult result) {
                (result.isSuccessful() ? WRITTEN : FAILED).incrementAndGet();
                inFlight.release();
            }

            @Override
            public void onFailure(Throwable error) {
                FAILED.incrementAndGet();
                inFlight.release();
            }
        };
        Thread putting = new Thread(() -> {
            for (int n = 0;; n++) {
                inFlight.acquireUninterruptibly();
                ByteBuffer record = data[n % data.length].duplicate();
                Futures.addCallback(
                        producer.addUserRecord(stream, names[n % names.length], record),
                        counted,
                        MoreExecutors.directExecutor());
            }
        }, "putting");
        putting.setDaemon(true);
        putting.start();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        while (requests.readLine() != null) {
            System.out.println(WRITTEN.get() + " " + WRITTEN.get() * size + " " + FAILED.get());
        }
        producer.destroy();
        Runtime.getRuntime().halt(0);
    }

    private static void putAtRates(KinesisProducer producer, String stream, int size) throws Exception {
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            String[] words = line.split(" ");
            double rate = Double.parseDouble(words[1]);
            double records = rate * Double.parseDouble(words[2]);
            long began = System.nanoTime();
            List<ListenableFuture<UserRecordResult>> results = new ArrayList<>();
            for (int n = 0; n < records; n++) {
                LockSupport.parkNanos(began + (long) (n / rate * 1e9) - System.nanoTime());
                Instant now = Instant.now();
                String stamp = String.format("%020d", now.getEpochSecond() * 1_000_000_000 + now.getNano());
                byte[] data = Arrays.copyOf(stamp.getBytes(StandardCharsets.US_ASCII), size);
                results.add(producer.addUserRecord(stream, String.format("user-%07d", n % 10_000), ByteBuffer.wrap(data)));
            }
            for (ListenableFuture<UserRecordResult> result : results) {
                if (!result.get().isSuccessful()) {
                    throw new IllegalStateException("a record failed");
                }
            }
            System.out.println(results.size());
        }
        producer.destroy();
        Runtime.getRuntime().halt(0);
    }
}
