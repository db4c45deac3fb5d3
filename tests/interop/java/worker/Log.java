import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;

/** Writes the lines of tests/interop/workers/protocol.py to standard output. */
final class Log {
    private final PrintStream out;

    Log() {
        out = new PrintStream(
                new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, StandardCharsets.UTF_8);
    }

    private static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    synchronized void record(String shard, String sequence, long subsequence, String key, String data) {
        out.print("record\t" + now() + "\t" + shard + "\t" + sequence + "\t" + subsequence + "\t" + key + "\t" + data + "\n");
    }

    synchronized void event(String name, String shard, String detail) {
        out.print("event\t" + now() + "\t" + name + "\t" + shard + "\t" + detail + "\n");
        out.flush();
    }

    synchronized void flush() {
        out.flush();
    }
}
