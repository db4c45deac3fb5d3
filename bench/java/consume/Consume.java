import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * Reads a stream by the Kinesis Client Library. It prints the number of records and their bytes so far for each line of its input.
 * For the line "take" it prints the time of the first record and the latencies since the last such line, in microseconds.
 * Arguments: URL of Kinesis, file of its authority or "-", URL of DynamoDB, stream, application, and how to read: "busy" polls each
 * shard five times a second, "polling" and "fan-out" have the defaults of the library, and records begin with their time.
 */
public final class Consume {
    private static final AtomicLong RECORDS = new AtomicLong();
    private static final AtomicLong BYTES = new AtomicLong();
    private static final int STAMP = 20;
    private static boolean stamped;
    private static long first;
    private static List<Long> latencies = new ArrayList<>();
    private static final InitialPositionInStreamExtended TRIM_HORIZON =
            InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);

    private Consume() {}

    public static void main(String[] arguments) throws Exception {
        StaticCredentialsProvider credentials = StaticCredentialsProvider.create(
                AwsBasicCredentials.create("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"));
        String way = arguments[5];
        stamped = !way.equals("busy");
        NettyNioAsyncHttpClient.Builder http = NettyNioAsyncHttpClient.builder()
                .protocol(way.equals("fan-out") ? Protocol.HTTP2 : Protocol.HTTP1_1)
                .maxConcurrency(100)
                .connectionAcquisitionTimeout(Duration.ofSeconds(20));
        if (!arguments[1].equals("-")) {
            TrustManager[] trusted = trusted(Path.of(arguments[1]));
            http.tlsTrustManagersProvider(() -> trusted);
        }
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .region(Region.US_EAST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(arguments[0]))
                .httpClientBuilder(http)
                .build();
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .region(Region.US_EAST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(arguments[2]))
                .build();
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .region(Region.US_EAST_1)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(arguments[2]))
                .build();
        ConfigsBuilder builder = new ConfigsBuilder(
                new SingleStreamTracker(arguments[3], TRIM_HORIZON), arguments[4], kinesis, dynamo, cloudWatch, "worker",
                Counter::new);
        LeaseManagementConfig leases = builder.leaseManagementConfig().initialPositionInStream(TRIM_HORIZON);
        RetrievalConfig retrieval = builder.retrievalConfig();
        if (way.equals("fan-out")) {
            retrieval.retrievalSpecificConfig(
                    new FanOutConfig(kinesis).streamName(arguments[3]).applicationName(arguments[4]));
        } else {
            PollingConfig polling = new PollingConfig(arguments[3], kinesis);
            if (way.equals("busy")) {
                polling.idleTimeBetweenReadsInMillis(200);
            }
            retrieval.retrievalSpecificConfig(polling);
        }
        Scheduler scheduler = new Scheduler(
                builder.checkpointConfig(),
                builder.coordinatorConfig(),
                leases,
                builder.lifecycleConfig(),
                builder.metricsConfig().metricsFactory(new NullMetricsFactory()),
                builder.processorConfig(),
                retrieval);
        Thread running = new Thread(scheduler, "scheduler");
        running.setDaemon(true);
        running.start();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            System.out.println(line.equals("take") ? taken() : RECORDS.get() + " " + BYTES.get());
        }
        Runtime.getRuntime().halt(0);
    }

    private static synchronized String taken() {
        StringBuilder line = new StringBuilder().append(first);
        latencies.forEach(latency -> line.append(' ').append(latency));
        latencies = new ArrayList<>();
        return line.toString();
    }

    private static synchronized void received(ByteBuffer data) {
        Instant now = Instant.now();
        long micros = now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
        byte[] stamp = new byte[STAMP];
        data.duplicate().get(stamp);
        latencies.add(micros - Long.parseLong(new String(stamp, StandardCharsets.US_ASCII)) / 1000);
        if (first == 0) {
            first = micros;
        }
    }

    private static TrustManager[] trusted(Path caFile) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = Files.newInputStream(caFile)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return factory.getTrustManagers();
    }

    /** Counts the records of a shard. */
    private static final class Counter implements ShardRecordProcessor {
        @Override
        public void initialize(InitializationInput input) {}

        @Override
        public void processRecords(ProcessRecordsInput input) {
            long bytes = 0;
            for (KinesisClientRecord record : input.records()) {
                bytes += record.data().remaining();
                if (stamped) {
                    received(record.data());
                }
            }
            RECORDS.addAndGet(input.records().size());
            BYTES.addAndGet(bytes);
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {}

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {}
    }
}
