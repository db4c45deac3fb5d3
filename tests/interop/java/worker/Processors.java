import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;

/** Creates processors. With several streams, the name of the stream precedes the shard id in what they log. */
final class Processors implements ShardRecordProcessorFactory {
    private final Log log;
    private final long every;
    private final long recordMicros;

    Processors(Log log, long every, long recordMicros) {
        this.log = log;
        this.every = every;
        this.recordMicros = recordMicros;
    }

    @Override
    public ShardRecordProcessor shardRecordProcessor() {
        return new Processor(log, every, recordMicros, "");
    }

    @Override
    public ShardRecordProcessor shardRecordProcessor(StreamIdentifier stream) {
        String prefix = stream.streamCreationEpochOptional().isPresent() ? stream.streamName() + ":" : "";
        return new Processor(log, every, recordMicros, prefix);
    }
}
