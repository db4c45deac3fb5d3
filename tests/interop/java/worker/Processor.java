import java.nio.charset.StandardCharsets;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/** Logs each record of one shard, and checkpoints after every n-th user record, also inside aggregates. */
final class Processor implements ShardRecordProcessor {
    private final Log log;
    private final long every;
    private final long recordMicros;
    private final String prefix;
    private String shard = "";
    private long handled;
    private KinesisClientRecord last;

    Processor(Log log, long every, long recordMicros, String prefix) {
        this.log = log;
        this.every = every;
        this.recordMicros = recordMicros;
        this.prefix = prefix;
    }

    @Override
    public void initialize(InitializationInput input) {
        shard = prefix + input.shardId();
        log.event("initialized", shard, input.extendedSequenceNumber().sequenceNumber() + "/"
                + input.extendedSequenceNumber().subSequenceNumber());
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
        for (KinesisClientRecord record : input.records()) {
            String data = StandardCharsets.UTF_8.decode(record.data()).toString();
            String id = data.substring(0, data.indexOf(' '));
            log.record(shard, record.sequenceNumber(), record.subSequenceNumber(), record.partitionKey(), id);
            last = record;
            handled += 1;
            pause();
            if (handled % every == 0) {
                checkpoint(input.checkpointer());
            }
        }
        log.flush();
    }

    private void pause() {
        if (recordMicros > 0) {
            log.flush();
            try {
                Thread.sleep(recordMicros / 1000, (int) (recordMicros % 1000) * 1000);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private void checkpoint(RecordProcessorCheckpointer checkpointer) {
        log.flush();
        try {
            checkpointer.checkpoint(last.sequenceNumber(), last.subSequenceNumber());
            log.event("checkpointed", shard, last.sequenceNumber() + "/" + last.subSequenceNumber());
        } catch (ShutdownException | InvalidStateException refused) {
            log.event("checkpoint-refused", shard, refused.getClass().getSimpleName());
        } catch (RuntimeException failed) {
            log.event("checkpoint-failed", shard, failed.getClass().getSimpleName());
        }
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
        log.event("lease-lost", shard, "");
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
        try {
            input.checkpointer().checkpoint();
            log.event("shard-ended", shard, "");
        } catch (ShutdownException | InvalidStateException refused) {
            log.event("checkpoint-refused", shard, refused.getClass().getSimpleName());
        } catch (RuntimeException failed) {
            log.event("checkpoint-failed", shard, failed.getClass().getSimpleName());
        }
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
        log.event("shutdown-requested", shard, "");
        if (last != null) {
            checkpoint(input.checkpointer());
        }
    }
}
