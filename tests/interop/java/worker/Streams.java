import java.util.ArrayList;
import java.util.List;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.StreamConfig;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy;
import software.amazon.kinesis.processor.MultiStreamTracker;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.processor.StreamTracker;

/** Several streams in the multi-stream mode. Each is named by account, stream and second of creation, separated by colons. */
final class Streams implements MultiStreamTracker {
    private final List<StreamConfig> configs = new ArrayList<>();

    private Streams(String streams, InitialPositionInStreamExtended start) {
        for (String stream : streams.split(",")) {
            configs.add(new StreamConfig(StreamIdentifier.multiStreamInstance(stream), start));
        }
    }

    /** Returns whether the option names streams of the multi-stream mode, and not the only stream. */
    static boolean several(String streams) {
        return streams.contains(":");
    }

    static StreamTracker tracker(String streams, InitialPositionInStreamExtended start) {
        return several(streams) ? new Streams(streams, start) : new SingleStreamTracker(streams, start);
    }

    @Override
    public List<StreamConfig> streamConfigList() {
        return configs;
    }

    @Override
    public FormerStreamsLeasesDeletionStrategy formerStreamsLeasesDeletionStrategy() {
        return new FormerStreamsLeasesDeletionStrategy.NoLeaseDeletionStrategy();
    }
}
