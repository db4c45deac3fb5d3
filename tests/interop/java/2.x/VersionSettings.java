import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.leases.LeaseManagementConfig;

/** Settings that only some versions have. Version 2 has none of them. */
final class VersionSettings {
    private VersionSettings() {}

    static void apply(CoordinatorConfig config, Options options) {}

    static void apply(LeaseManagementConfig config, Options options) {}
}
