/* banner.c - see banner.h */
#include "server/banner.h"

#include "base/text.h"
#include "base/version.h"

static const char rule[] = "======================================================================\n";
static const double gib = 1 << 30;

static void format_gpu(const struct device_info *gpu, size_t i, const struct dispatch *dispatch, struct buf *out)
{
    double total = (double)gpu->memory_total;

    buf_printf(out, "  GPU %zu (%s)\n", i, gpu->id);
    buf_printf(out, tr("  ├─ 型号: %s\n", "  ├─ Model: %s\n"), gpu->name);
    buf_printf(out, "  ├─ Compute Capability: %d.%d\n", gpu->compute_major, gpu->compute_minor);
    buf_printf(out, tr("  ├─ 总显存: %.2f GB\n", "  ├─ Memory: %.2f GB\n"), total / gib);
    buf_printf(out, tr("  ├─ 已用显存: %.2f GB (%.1f%%)\n", "  ├─ Used: %.2f GB (%.1f%%)\n"),
               (double)gpu->memory_used / gib, total > 0 ? 100 * (double)gpu->memory_used / total : 0);
    buf_printf(out, tr("  ├─ 空闲显存: %.2f GB\n", "  ├─ Free: %.2f GB\n"), (double)gpu->memory_free / gib);
    buf_printf(
        out, tr("  └─ 当前任务: 训练=%lld, 推理=%lld\n\n", "  └─ Running tasks: training=%lld, inference=%lld\n\n"),
        (long long)dispatch_used(dispatch, i, SLOT_TRAINING), (long long)dispatch_used(dispatch, i, SLOT_INFERENCE));
}

static void format_host(const struct device_set *devices, struct buf *out)
{
    const struct host_info *host = device_host(devices);
    const char *note = device_set_note(devices);

    buf_puts(out, tr("❌ GPU不可用，将使用CPU进行计算\n", "❌ No GPU available, the CPU will compute\n"));
    if (note)
        buf_printf(out, tr("  ├─ 原因: %s\n", "  ├─ Reason: %s\n"), note);
    buf_printf(out, tr("  ├─ 处理器: %s\n", "  ├─ Processor: %s\n"), host->cpu_model);
    buf_printf(out, tr("  ├─ 核心: %d (物理 %d)\n", "  ├─ Cores: %d (physical: %d)\n"), host->cores,
               host->physical_cores);
    buf_printf(out, tr("  └─ 内存: %.2f GB (可用 %.2f GB)\n", "  └─ Memory: %.2f GB (%.2f GB available)\n"),
               (double)host->memory_total / gib, (double)host->memory_available / gib);
}

void banner_format(const struct device_set *devices, const struct dispatch *dispatch, struct buf *out)
{
    size_t count = device_count(devices);
    const char *cuda = device_driver_cuda_version(devices);

    buf_puts(out, "\n");
    buf_puts(out, rule);
    buf_puts(out, tr("🚀 GPU硬件信息\n", "🚀 GPU hardware\n"));
    buf_puts(out, rule);
    if (count == 0) {
        format_host(devices, out);
        buf_puts(out, rule);
        return;
    }
    buf_puts(out, tr("✅ GPU可用\n", "✅ GPU available\n"));
    buf_printf(out, tr("📦 CUDA版本: %s\n", "📦 CUDA version: %s\n"), cuda ? cuda : "-");
    buf_printf(out, tr("🔧 PyTorch版本: %s\n", "🔧 Engine: %s\n"), "rfuav " RFUAV_VERSION);
    buf_printf(out, tr("🎯 检测到 %zu 个GPU设备:\n\n", "🎯 GPUs found: %zu\n\n"), count);
    for (size_t i = 0; i < count; i++)
        format_gpu(device_get(devices, i), i, dispatch, out);
    buf_puts(out, rule);
}
