import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
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
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/** A worker of the Kinesis Client Library that logs all it does. The line "stop" on standard input shuts it down in order. */
public final class Worker {
    private static final InitialPositionInStreamExtended TRIM_HORIZON =
            InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);

    private static final long GRACEFUL_SECONDS = 30;

    private Worker() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        Log log = new Log();
        KinesisAsyncClient kinesis = kinesis(options);
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .region(Region.of(options.text("region")))
                .credentialsProvider(credentials(options))
                .endpointOverride(URI.create(options.text("dynamodb")))
                .build();
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .region(Region.of(options.text("region")))
                .credentialsProvider(credentials(options))
                .endpointOverride(URI.create(options.text("dynamodb")))
                .build();
        long every = options.number("checkpoint_every", 7);
        long recordMicros = options.number("record_micros", 0);
        ConfigsBuilder builder = new ConfigsBuilder(
                Streams.tracker(options.text("stream"), TRIM_HORIZON),
                options.text("application"),
                kinesis,
                dynamo,
                cloudWatch,
                options.text("worker_id"),
                new Processors(log, every, recordMicros));
        Scheduler scheduler = new Scheduler(
                builder.checkpointConfig(),
                coordinator(builder, options),
                leases(builder, options),
                builder.lifecycleConfig(),
                builder.metricsConfig().metricsFactory(new NullMetricsFactory()),
                builder.processorConfig(),
                retrieval(builder, options, kinesis));
        Thread stopper = new Thread(() -> stop(scheduler, log), "stopper");
        stopper.setDaemon(true);
        stopper.start();
        log.event("started", "", "");
        scheduler.run();
        log.event("stopped", "", "");
        System.exit(0);
    }

    private static StaticCredentialsProvider credentials(Options options) {
        return StaticCredentialsProvider.create(
                AwsBasicCredentials.create(options.text("access_key_id"), options.text("secret_access_key")));
    }

    private static KinesisAsyncClient kinesis(Options options) throws Exception {
        TrustManager[] trusted = trusted(Path.of(options.text("ca_file")));
        return KinesisAsyncClient.builder()
                .region(Region.of(options.text("region")))
                .credentialsProvider(credentials(options))
                .endpointOverride(URI.create(options.text("kinesis")))
                .httpClientBuilder(NettyNioAsyncHttpClient.builder()
                        .protocol(Protocol.HTTP2)
                        .maxConcurrency(100)
                        .connectionAcquisitionTimeout(Duration.ofSeconds(20))
                        .tlsTrustManagersProvider(() -> trusted))
                .build();
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

    private static CoordinatorConfig coordinator(ConfigsBuilder builder, Options options) {
        CoordinatorConfig config = builder.coordinatorConfig()
                .parentShardPollIntervalMillis(options.number("parent_poll_millis", 200))
                .shardConsumerDispatchPollIntervalMillis(options.number("dispatch_poll_millis", 100));
        VersionSettings.apply(config, options);
        return config;
    }

    private static LeaseManagementConfig leases(ConfigsBuilder builder, Options options) {
        LeaseManagementConfig config = builder.leaseManagementConfig()
                .failoverTimeMillis(options.number("failover_millis", 3000))
                .shardSyncIntervalMillis(options.number("shard_sync_millis", 1))
                .listShardsCacheAllowedAgeInSeconds(options.number("shards_cache_seconds", 0))
                .initialPositionInStream(TRIM_HORIZON);
        VersionSettings.apply(config, options);
        return config;
    }

    private static RetrievalConfig retrieval(ConfigsBuilder builder, Options options, KinesisAsyncClient kinesis) {
        RetrievalConfig config = builder.retrievalConfig();
        if (options.text("fetch", "polling").equals("fanout")) {
            return config.retrievalSpecificConfig(new FanOutConfig(kinesis)
                    .streamName(options.text("stream"))
                    .applicationName(options.text("application")));
        }
        PollingConfig polling = Streams.several(options.text("stream"))
                ? new PollingConfig(kinesis)
                : new PollingConfig(options.text("stream"), kinesis);
        polling.maxRecords((int) options.number("max_records", 10));
        polling.idleTimeBetweenReadsInMillis(options.number("idle_millis", 250));
        return config.retrievalSpecificConfig(polling);
    }

    /**
     * Shuts the scheduler down gracefully, or at once if that takes too long, as the samples of the KCL do.
     *
     * <p>The graceful shutdown of 2.7.2 waits for each lease that the worker holds. It never ends if one of them is of a shard
     * that has ended and whose lease is not deleted yet, because the consumer of that shard takes no notification any more. If
     * that lease is lost or deleted in the meantime, the graceful shutdown returns false and the scheduler still runs.
     */
    private static void shutDown(Scheduler scheduler, Log log) {
        try {
            if (scheduler.startGracefulShutdown().get(GRACEFUL_SECONDS, TimeUnit.SECONDS)) return;
            log.event("stopping-at-once", "", "incomplete");
            scheduler.shutdown();
        } catch (TimeoutException late) {
            log.event("stopping-at-once", "", "late");
            scheduler.shutdown();
        } catch (ExecutionException | InterruptedException failed) {
            log.event("stop-failed", "", String.valueOf(failed));
            scheduler.shutdown();
        }
    }

    /** Shuts the scheduler down at the line "stop", and ends the process at once if the driver is gone. */
    private static void stop(Scheduler scheduler, Log log) {
        try (BufferedReader commands = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                if (line.equals("stop")) {
                    log.event("stopping", "", "");
                    new Thread(() -> shutDown(scheduler, log), "shutdown").start();
                }
            }
        } catch (java.io.IOException closed) {
            log.event("stdin-failed", "", "");
        }
        Runtime.getRuntime().halt(3);
    }
}
